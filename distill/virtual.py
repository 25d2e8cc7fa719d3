"""Take the learned vectors before a row's tokens (prompt tuning, P-tuning) out of what a model gave.

They stand first. Scores are those before the softmax, so that what is left of them needs no new normalisation: whoever
makes probabilities of them does it over the real keys.
"""

from dataclasses import replace

from distill.types import Heads, Inside, Outputs


def without_virtual_tokens(outputs: Outputs, count: int, *, beside: bool) -> Outputs:
    """Return the outputs of the real positions alone; `beside` says whether a decoder stands beside the encoder."""
    if count == 0:
        return outputs
    encoder = _positions(outputs.on("encoder"), count)
    logits = outputs.logits
    if logits is not None and logits.ndim == 3 and not beside:
        logits = logits[:, count:]
    return replace(
        outputs,
        logits=logits,
        hidden_states=encoder.hidden_states,
        attentions=encoder.attentions,
        relations=encoder.relations,
        cross=_keys(outputs.cross, count),
    )


def _positions(inside: Inside, count: int) -> Inside:
    """Cut where every position is one of the encoder: hidden states [B T D], scores [B H T T], heads [B H T A]."""
    return Inside(
        {layer: states[:, count:] for layer, states in inside.hidden_states.items()},
        {layer: scores[..., count:, count:] for layer, scores in inside.attentions.items()},
        {
            layer: Heads(heads.query[:, :, count:], heads.key[:, :, count:], heads.value[:, :, count:])
            for layer, heads in inside.relations.items()
        },
    )


def _keys(inside: Inside, count: int) -> Inside:
    """Cut where keys alone are the encoder's: scores [B H U T], keys and values [B H T A]."""
    return Inside(
        inside.hidden_states,
        {layer: scores[..., count:] for layer, scores in inside.attentions.items()},
        {
            layer: Heads(heads.query, heads.key[:, :, count:], heads.value[:, :, count:])
            for layer, heads in inside.relations.items()
        },
    )
