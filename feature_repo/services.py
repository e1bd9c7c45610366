"""What models ask for, by name. A change of what a model reads is a new service."""

from feast import FeatureService

from listening import (
    track_audio_features,
    track_popularity,
    user_audio_preferences,
    user_listening_stats,
    user_track_interactions,
)
from on_demand import context_aware_features

recommendation = FeatureService(
    name="recommendation",
    description="All six views, for ranking candidates for a listener.",
    features=[
        user_listening_stats,
        user_audio_preferences,
        track_audio_features,
        track_popularity,
        user_track_interactions,
        context_aware_features,
    ],
)
