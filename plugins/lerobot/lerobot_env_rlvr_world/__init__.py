"""The environment ``rlvr_world`` of LeRobot: ``lerobot-eval --env.type=rlvr_world --env.url=http://127.0.0.1:8000``."""

from dataclasses import dataclass, field
from typing import Any

from lerobot.configs import FeatureType, PolicyFeature
from lerobot.envs.configs import EnvConfig
from lerobot.utils.constants import ACTION, OBS_IMAGE, OBS_STATE

from lerobot_env_rlvr_world.worlds import ServedWorlds


@EnvConfig.register_subclass("rlvr_world")
@dataclass
class RlvrWorldEnv(EnvConfig):
    """What ``rlvr-world serve RUN --task NAME`` serves; what is seen and done there is asked of it."""

    url: str = "http://127.0.0.1:8000"
    world: str = ""  # sft, rl/seed0, real, ...; empty takes the server's first, the run's best model
    token: str = ""
    fps: int = 10
    episode_length: int = 300  # at most; the server's task ends its episodes itself
    features_map: dict[str, str] = field(
        default_factory=lambda: {"pixels": OBS_IMAGE, "agent_pos": OBS_STATE, ACTION: ACTION}
    )

    def __post_init__(self) -> None:
        seen = self._worlds(1).shapes()
        kinds = {"pixels": FeatureType.VISUAL, "agent_pos": FeatureType.STATE, ACTION: FeatureType.ACTION}
        self.features = {name: PolicyFeature(kinds[name], shape) for name, shape in seen.items()}

    @property
    def gym_kwargs(self) -> dict[str, Any]:
        return {}

    def create_envs(self, n_envs: int, use_async_envs: bool = False) -> dict[str, dict[int, ServedWorlds]]:
        return {self.type: {0: self._worlds(n_envs)}}

    def _worlds(self, n_envs: int) -> ServedWorlds:
        return ServedWorlds(self.url, n_envs, self.world, self.token, self.episode_length, self.fps)
