"""The view that is computed from the moment of a request, by the function that training uses."""

import pandas as pd
from feast import Field, RequestSource, types
from feast.on_demand_feature_view import on_demand_feature_view

from listening import track_audio_features, user_audio_preferences
from musicrec.features import context, repository

moment = RequestSource(
    name="moment",
    description="What the caller knows of the moment, one value per candidate.",
    schema=[Field(name=name, dtype=getattr(types, kind)) for name, kind in context.REQUEST.items()],
)

# Feast refuses features on demand that say more than their name and type.
MEANINGS = {
    name: f"{meaning}; {unit}; null: {null}"
    for name, (unit, meaning, null) in context.FEATURES.items()
}


@on_demand_feature_view(
    sources=[moment, track_audio_features[["energy"]], user_audio_preferences[["energy_30d"]]],
    schema=[Field(name=name, dtype=types.Float32) for name in context.FEATURES],
    mode="pandas",
    description="what the moment of a request says about a candidate",
    tags={**MEANINGS, repository.DEFINITION: repository.definition(context.NAME)},
)
def context_aware_features(inputs: pd.DataFrame) -> pd.DataFrame:
    # Feast keeps this function without its module: whatever it needs is imported in here.
    import pandas as pd

    from musicrec.features.context import FEATURES, of_rows

    return pd.DataFrame(of_rows(inputs), columns=list(FEATURES))
