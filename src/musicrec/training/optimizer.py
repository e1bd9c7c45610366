"""AdamW whose step on the item embedding is as sparse as the gradient it gets."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm
from torch.optim import AdamW


class LazyRowsAdamW(AdamW):
    """Fused AdamW, except for one table of which it touches the rows of the step only.

    A dense Adam step reads and writes every row of the item embedding and of its two moments, so
    it costs as much as the catalogue is long; here it costs as much as the batch has items. The
    table's rows follow lazy Adam (``torch.optim.SparseAdam``). Departures from dense Adam, for the
    table alone:

    - A row without a gradient in a step stays as it is, and so do its moments: they do not decay,
      and momentum does not carry the row on.
    - The bias correction goes by the number of all steps, not of those that touched the row.
    - There is no weight decay.

    To Lightning this is one optimizer: one ``step``, the usual parameter groups, a ``state_dict``
    of plain tensors with AdamW's keys. Under a loss scaler the gradients must be unscaled first,
    which Lightning does.

    Args:
        groups: parameter groups as AdamW takes them, ``table`` among them.
        table: ``(rows, dim)``; its gradient is a sparse tensor over rows.
        more: AdamW's other settings.
    """

    def __init__(self, groups: Iterable[dict[str, Any]], table: nn.Parameter, **more: Any) -> None:
        super().__init__(groups, fused=True, **more)
        self._step_supports_amp_scaling = False
        self.table = table
        (self._table_group,) = (
            number
            for number, group in enumerate(self.param_groups)
            if any(parameter is table for parameter in group["params"])
        )

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        gradient, self.table.grad = self.table.grad, None  # AdamW passes over what has none
        super().step()
        self.table.grad = gradient
        if gradient is not None:
            self._step_rows(gradient.coalesce())
        return loss

    def _step_rows(self, gradient: Tensor) -> None:
        group, state = self.param_groups[self._table_group], self.state[self.table]
        if not state:
            state["step"] = torch.zeros((), device=self.table.device)
            state["exp_avg"] = torch.zeros_like(self.table)
            state["exp_avg_sq"] = torch.zeros_like(self.table)
        rows, values = gradient.indices()[0], gradient.values()
        state["step"] += 1
        beta, beta_sq = group["betas"]
        average = state["exp_avg"][rows].lerp_(values, 1 - beta)
        average_sq = state["exp_avg_sq"][rows].mul_(beta_sq)
        average_sq.addcmul_(values, values, value=1 - beta_sq)
        state["exp_avg"].index_copy_(0, rows, average)
        state["exp_avg_sq"].index_copy_(0, rows, average_sq)
        # Tensors all the way: a number would have to be fetched from the device at every step.
        scale = average_sq.div_(1 - beta_sq ** state["step"]).sqrt_().add_(group["eps"])
        change = average.div_(scale).mul_(-group["lr"] / (1 - beta ** state["step"]))
        self.table.index_add_(0, rows, change)

    @torch.no_grad()
    def clip(self, limit: float, algorithm: str) -> None:
        """Clip the gradients as ``torch.nn.utils`` does, which cannot where they are sparse.

        Args:
            limit: of the norm of all gradients together, or of each value.
            algorithm: ``norm`` or ``value``.
        """
        gradients = []
        for parameter in (each for group in self.param_groups for each in group["params"]):
            if parameter.grad is None:
                continue
            if parameter.grad.is_sparse:
                parameter.grad = parameter.grad.coalesce()  # norm and limit are of summed rows
                gradients.append(parameter.grad.values())
            else:
                gradients.append(parameter.grad)
        if algorithm == "value":
            torch._foreach_clamp_min_(gradients, -limit)
            torch._foreach_clamp_max_(gradients, limit)
        else:
            share = (limit / (get_total_norm(gradients) + 1e-6)).clamp(max=1.0)
            torch._foreach_mul_(gradients, share)
