"""The stored views, as ``musicrec.features.views`` defines them; Feast finds module-level names."""

from datetime import timedelta

from feast import FeatureView, Field
from feast.infra.offline_stores.contrib.postgres_offline_store.postgres_source import (
    PostgreSQLSource,
)
from feast.types import Float32, String

from entities import track, user
from musicrec.features import repository, views
from musicrec.features.tables import STAMP

ENTITIES = {"user": user, "track": track}


def feature_view(view: views.View) -> FeatureView:
    """Feast's form of a view: its table in Postgres, its features with unit and null rule."""
    keys = [Field(name=key, dtype=String) for key in view.join_keys]
    features = [
        Field(
            name=feature.name,
            dtype=Float32,
            description=feature.meaning,
            tags={"unit": feature.unit, "null": feature.null or "never"},
        )
        for feature in view.features
    ]
    window = f"{view.window.days} days" if view.window else "none: attributes that do not change"
    return FeatureView(
        name=view.name,
        description=view.meaning,
        entities=[ENTITIES[entity] for entity in view.entities],
        schema=[*keys, *features],
        source=PostgreSQLSource(name=view.name, table=view.name, timestamp_field=STAMP),
        ttl=view.ttl or timedelta(0),  # 0 is for ever
        tags={"window": window, repository.DEFINITION: repository.definition(view.name)},
    )


user_listening_stats = feature_view(views.USER_LISTENING_STATS)
user_audio_preferences = feature_view(views.USER_AUDIO_PREFERENCES)
track_audio_features = feature_view(views.TRACK_AUDIO_FEATURES)
track_popularity = feature_view(views.TRACK_POPULARITY)
user_track_interactions = feature_view(views.USER_TRACK_INTERACTIONS)
