"""Relevance of recurrent layers and of attention: torch runs them as one, here they are taken apart by hand."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from camsweep.core.methods import parse_expression

from . import relevance_references as ref
from .test_relevance import alike, near, normal, opened, plain, recorded, sums, with_key
from .test_relevance_models import standard

TOKENS = ["z", "eps=0.1", "a2b1@flat", "gamma=0.25@sign=0", "z,bias=ignore", "eps=0.1,attention=cp"]
ALONE = ["z", "eps=0.25std", "a2b1", "gamma=0.25@w2", "eps=0.1@sign=0,eps=0.25std"]


def sequences(tokens, features):
    """(batch, channel, token)."""
    return np.random.default_rng(3).normal(size=(3, features, tokens)).astype(np.float32)


class Reading(nn.Module):
    """Scores of what ``run(module, h)`` gives for h (batch, token, feature), of inputs (batch, channel, token)."""

    def __init__(self, module, run, shape=(5, 4), *, bias=True):
        super().__init__()
        with torch.no_grad():
            size = run(module, torch.zeros(1, *shape, dtype=torch.float64)).numel()
        torch.manual_seed(1)
        self.module, self.run, self.head = module, run, nn.Linear(size, 3, bias=bias)

    def forward(self, x):
        return self.head(self.run(self.module, x.transpose(1, 2)).flatten(1))


def no_map_depends_on_its_batch_mates(net, x):
    x = x * np.float32([[[0.1]], [[1]], [[10]]])
    whole = recorded(net, x, *ALONE)
    for row in (0, 2):
        for found, alone in zip(whole, recorded(net, x[row : row + 1], *ALONE), strict=True):
            near(alone[0], found[row], 1e-9)


# Recurrent layers in their parts


def runs(module, h, start=None):
    """A recurrent layer, whichever way round it takes its axes; its last states read too."""
    found, last = module(h if module.batch_first else h.transpose(0, 1), start)
    found = found if module.batch_first else found.transpose(0, 1)
    last = torch.cat(last, -1) if isinstance(last, tuple) else last
    return torch.cat([found.flatten(1), last.transpose(0, 1).flatten(1)], 1)


def lstm(a, h, c, w, b, gate=torch.sigmoid):
    i, f, g, o = (a + F.linear(h, w, b)).chunk(4, -1)
    c = gate(f) * c + gate(i) * torch.tanh(g)
    return gate(o) * torch.tanh(c), c


def gru(a, h, w, b, gate=torch.sigmoid):
    """1 - sigmoid(z) being sigmoid(-z)."""
    (r, z, n), (hr, hz, hn) = a.chunk(3, -1), F.linear(h, w, b).chunk(3, -1)
    z = z + hz
    return gate(-z) * torch.tanh(n + gate(r + hr) * hn) + gate(z) * h


def steps(module, h, gate=torch.sigmoid, start=None):
    """The same, step by step."""
    kind, last_h, last_c = module.mode, [], []
    states = h.new_zeros(99, len(h), module.proj_size or module.hidden_size) if start is None else start[0]
    cells = h.new_zeros(99, len(h), module.hidden_size) if start is None else start[1]
    for layer in range(module.num_layers):
        ways = []
        for way in ("", "_reverse")[: 1 + module.bidirectional]:
            named = {name: getattr(module, f"{name}_l{layer}{way}", None) for name in
                     ("weight_ih", "weight_hh", "weight_hr", "bias_ih", "bias_hh")}  # fmt: skip
            w_in, w, w_out, b_in, b = named.values()
            state, c, found = states[len(last_h)], cells[len(last_h)], {}
            for t in range(h.shape[1])[:: -1 if way else 1]:
                a = F.linear(h[:, t], w_in, b_in)
                if kind == "LSTM":
                    state, c = lstm(a, state, c, w, b, gate)
                    state = state if w_out is None else F.linear(state, w_out)
                elif kind == "GRU":
                    state = gru(a, state, w, b, gate)
                else:
                    state = {"RNN_TANH": torch.tanh, "RNN_RELU": torch.relu}[kind](a + F.linear(state, w, b))
                found[t] = state
            ways.append(torch.stack([found[t] for t in sorted(found)], 1))
            last_h.append(state)
            last_c.append(c)
        h = torch.cat(ways, -1)
    last = torch.stack(last_h, 1)
    last = torch.cat([last, torch.stack(last_c, 1)], -1) if kind == "LSTM" else last
    return torch.cat([h.flatten(1), last.flatten(1)], 1)


RECURRENT = {
    "lstm": lambda **k: nn.LSTM(2, 3, batch_first=True, **k),
    "lstm, two layers both ways": lambda **k: nn.LSTM(2, 3, 2, bidirectional=True, batch_first=True, **k),
    "lstm, steps first": lambda **k: nn.LSTM(2, 3, 2, **k),
    "lstm, projected": lambda **k: nn.LSTM(2, 4, 2, bidirectional=True, batch_first=True, proj_size=2, **k),
    "gru": lambda **k: nn.GRU(2, 3, batch_first=True, **k),
    "gru, two layers both ways": lambda **k: nn.GRU(2, 3, 2, bidirectional=True, **k),
    "rnn": lambda **k: nn.RNN(2, 3, 2, batch_first=True, **k),
    "rnn, relu": lambda **k: nn.RNN(2, 3, bidirectional=True, nonlinearity="relu", **k),
}
SHORT = 3, 2
"""Steps and features."""


def of_steps(name, bias=True):
    return normal(RECURRENT[name](bias=bias)), sequences(*SHORT)


@pytest.mark.parametrize("name", RECURRENT)
@pytest.mark.parametrize("bias", [True, False])
def test_recurrent_layers_in_their_steps(name, bias):
    module, x = of_steps(name, bias)
    alike(Reading(module, runs, SHORT), Reading(module, steps, SHORT), x, *TOKENS)


def test_a_recurrent_layer_that_begins_somewhere():
    module, x = of_steps("lstm, two layers both ways")
    start = torch.linspace(-1, 1, 2 * 12).reshape(2, 4, 1, 3).double()
    net = Reading(module, lambda m, h: runs(m, h, tuple(start.expand(2, 4, len(h), 3).contiguous())), SHORT)
    alike(net, Reading(module, lambda m, h: steps(m, h, start=start.expand(2, 4, len(h), 3)), SHORT), x, *TOKENS)


@pytest.mark.parametrize("name", RECURRENT)
def test_recurrent_layers_without_biases_keep_all(name):
    module, x = of_steps(name, bias=False)
    net = Reading(module, runs, SHORT, bias=False)
    for found in recorded(net, x, "z", "z@flat", "gamma=0.25", "z,attention=cp"):
        assert np.allclose(sums(found), plain(net, x)[:, 1], rtol=1e-8)


@pytest.mark.parametrize("name", [name for name in RECURRENT if "rnn" not in name])
def test_by_cp_the_gates_are_constants(name):
    """Without biases: at the first step of a GRU a gate stands before a bias, and what that adds is the gate's."""
    module, x = of_steps(name, bias=False)
    net = Reading(module, runs, SHORT)
    constant = Reading(module, lambda m, h: steps(m, h, lambda g: torch.sigmoid(g).detach()), SHORT)
    texts = ["z", "eps=0.1", "a2b1@flat"]
    found = recorded(net, x, *(with_key(text, "attention=cp") for text in texts))
    for values, expected in zip(found, recorded(constant, x, *texts), strict=True):
        near(values, expected)


@pytest.mark.parametrize("name", RECURRENT)
def test_no_map_of_a_recurrent_layer_depends_on_its_batch_mates(name):
    module, x = of_steps(name)
    no_map_depends_on_its_batch_mates(Reading(module, runs, SHORT), x)


@pytest.mark.parametrize("kind", [nn.LSTMCell, nn.GRUCell])
@pytest.mark.parametrize("bias", [True, False])
def test_cells(kind, bias):
    def by_cell(cell, h):
        state = None
        for t in range(h.shape[1]):
            state = cell(h[:, t], state)
        return torch.cat(state, 1) if kind is nn.LSTMCell else state

    def by_hand(cell, h):
        state, c = h.new_zeros(2, len(h), 3)
        for t in range(h.shape[1]):
            a = F.linear(h[:, t], cell.weight_ih, cell.bias_ih)
            if kind is nn.LSTMCell:
                state, c = lstm(a, state, c, cell.weight_hh, cell.bias_hh)
            else:
                state = gru(a, state, cell.weight_hh, cell.bias_hh)
        return torch.cat([state, c], 1) if kind is nn.LSTMCell else state

    cell = normal(kind(2, 3, bias=bias))
    alike(Reading(cell, by_cell, SHORT), Reading(cell, by_hand, SHORT), sequences(*SHORT), *TOKENS)


def test_what_is_not_taken_apart_is_named():
    """The gradient of a cell without gates, and of packed sequences, whose rows are no samples."""

    def packed(m, h):
        lengths = torch.tensor([3, 2, 1])[: len(h)]
        found, _ = m(nn.utils.rnn.pack_padded_sequence(h, lengths, batch_first=True))
        return nn.utils.rnn.pad_packed_sequence(found, batch_first=True, total_length=3)[0]

    cell, rnn = normal(nn.RNNCell(2, 3)), normal(nn.LSTM(2, 3, batch_first=True))
    for module, run, name in ((cell, lambda m, h: m(h[:, 0]), "rnn_tanh_cell"), (rnn, packed, "lstm")):
        net, x = Reading(module, run, SHORT), sequences(*SHORT)
        with opened(net, x, ["z"]) as (trace, target):
            assert name in trace.run.recorded[0].unruled
            found = trace.map(parse_expression("lrp:z"), target, (), x.shape[2:])
            assert torch.isfinite(found).all()
            assert found.any()


@pytest.mark.parametrize("dim", [1, 2])
def test_glu_is_a_product_with_a_gate(dim):
    def by_hand(m, h):
        value, gate = m(h).chunk(2, dim)
        return value * torch.sigmoid(gate)

    layer, x = normal(nn.Linear(2, 4)), sequences(4, 2)
    net = Reading(layer, by_hand, (4, 2))
    alike(Reading(layer, lambda m, h: F.glu(m(h), dim), (4, 2)), net, x, *TOKENS)
    alike(Reading(layer, lambda m, h: nn.GLU(dim)(m(h)), (4, 2)), net, x, *TOKENS)


def test_by_cp_a_gate_of_channels_takes_nothing():
    """Squeeze and excitation, the gate scaled and not."""
    x = sequences(5, 2)
    first, gate = normal(nn.Linear(2, 4)), normal(nn.Linear(4, 4))
    for scale in (1.0, 2.0):

        def run(m, h, keep=lambda g: g, scale=scale):
            h = torch.relu(m[0](h))
            return h * keep(scale * torch.sigmoid(m[1](h.mean(1, keepdim=True))))

        module = nn.ModuleList([first, gate])
        net, constant = Reading(module, run, (5, 2)), Reading(module, lambda m, h: run(m, h, torch.detach), (5, 2))
        near(recorded(net, x, "eps=0.1,attention=cp")[0], recorded(constant, x, "eps=0.1")[0])


# Attention in its parts


def heads(h, n):
    return h.unflatten(-1, (n, -1)).transpose(-3, -2)


def dot_product(q, k, v, mask=None, scale=None, weigh=lambda a: torch.softmax(a, -1)):
    """True of a boolean mask stays."""
    a = torch.matmul(q, k.transpose(-2, -1)) * (1 / math.sqrt(q.shape[-1]) if scale is None else scale)
    if mask is not None:
        a = a.masked_fill(~mask, -math.inf) if mask.dtype == torch.bool else a + mask
    return torch.matmul(weigh(a), v)


def multi_head(m, q, k, v, mask=None, padding=None, weigh=lambda a: torch.softmax(a, -1)):
    """Here True of a boolean mask is left out."""
    own = m.in_proj_weight is None
    matrices = (m.q_proj_weight, m.k_proj_weight, m.v_proj_weight) if own else m.in_proj_weight.chunk(3)
    biases = [None] * 3 if m.in_proj_bias is None else m.in_proj_bias.chunk(3)
    q, k, v = (F.linear(h, w, b) for h, w, b in zip((q, k, v), matrices, biases, strict=True))
    tokens = k.shape[1]
    if m.bias_k is not None:
        k, v = (torch.cat([h, b.expand(len(h), 1, -1)], 1) for h, b in ((k, m.bias_k), (v, m.bias_v)))
    if m.add_zero_attn:
        k, v = (torch.cat([h, torch.zeros_like(h[:, :1])], 1) for h in (k, v))
    masks = []
    for each in (mask, None if padding is None else padding[:, None, None]):
        if each is not None:
            each = each.unflatten(0, (-1, m.num_heads)) if each.ndim == 3 else each
            each = torch.zeros(each.shape).double().masked_fill(each, -math.inf) if each.dtype == torch.bool else each
            masks.append(F.pad(each, (0, k.shape[1] - tokens)))
    q, k, v = (heads(h, m.num_heads) for h in (q, k, v))
    found = dot_product(q, k, v, sum(masks) if masks else None, weigh=weigh)
    return F.linear(found.transpose(1, 2).flatten(2), m.out_proj.weight, m.out_proj.bias)


CAUSAL = torch.ones(5, 5, dtype=torch.bool).triu(1)
PADDING = torch.tensor([[0, 0, 0, 0, 0], [0, 0, 0, 1, 1], [0, 0, 0, 0, 1]]).bool()
ADDED = torch.linspace(-1, 1, 25).reshape(5, 5).double()
EACH = torch.linspace(-1, 1, 6 * 25).sin().reshape(6, 5, 5).double()
ATTENTION = {
    "plain": ({}, {}),
    "no biases": ({"bias": False}, {}),
    "tokens first": ({"batch_first": False}, {}),
    "tokens first, padding": ({"batch_first": False}, {"key_padding_mask": PADDING}),
    "a bias for keys": ({"add_bias_kv": True}, {}),
    "a zero": ({"add_zero_attn": True}, {}),
    "both, masks": ({"add_bias_kv": True, "add_zero_attn": True}, {"attn_mask": CAUSAL, "key_padding_mask": PADDING}),
    "causal": ({}, {"attn_mask": CAUSAL}),
    "causal, said so": ({}, {"attn_mask": CAUSAL, "is_causal": True, "need_weights": False}),
    "minus infinity": ({}, {"attn_mask": torch.zeros(5, 5).double().masked_fill(CAUSAL, -math.inf)}),
    "additive": ({"bias": False}, {"attn_mask": ADDED, "need_weights": False}),
    "each head": ({}, {"attn_mask": EACH}),
    "each head, boolean": ({}, {"attn_mask": EACH > 0.9}),
    "padding": ({}, {"key_padding_mask": PADDING}),
    "additive padding": ({}, {"key_padding_mask": PADDING.double() * -3.0}),
    "causal, padding": ({}, {"attn_mask": CAUSAL, "key_padding_mask": PADDING}),
    "both additive": ({}, {"attn_mask": ADDED, "key_padding_mask": PADDING.double() * -3.0}),
}


def masks(given, batch):
    """Of as many samples as there are."""
    mask, padding = given.get("attn_mask"), given.get("key_padding_mask")
    mask = mask[: 2 * batch] if mask is not None and mask.ndim == 3 else mask
    return {"attn_mask": mask, "key_padding_mask": None if padding is None else padding[:batch]}


def attends(given):
    def run(m, h):
        given_now = {**given, **masks(given, len(h))}
        h = h if m.batch_first else h.transpose(0, 1)
        found, _ = m(h, h, h, **given_now)
        return found if m.batch_first else found.transpose(0, 1)

    return run


def attends_by_hand(given, weigh=lambda a: torch.softmax(a, -1)):
    return lambda m, h: multi_head(m, h, h, h, *masks(given, len(h)).values(), weigh=weigh)


@pytest.mark.parametrize("name", ATTENTION)
def test_multi_head_attention_in_its_parts(name):
    settings, given = ATTENTION[name]
    module = normal(nn.MultiheadAttention(4, 2, **{"batch_first": True, **settings}))
    alike(
        Reading(module, attends(given)), Reading(module, attends_by_hand(given)), sequences(5, 4), *TOKENS, share=1e-8
    )


@pytest.mark.parametrize(("kdim", "vdim"), [(3, 2), (4, 4)])
def test_attention_to_others(kdim, vdim):
    """Of other widths, with matrices of their own; and of the same width, which are cut from one."""

    def parts(h):
        return h, h[:, 1:4, :kdim], h[:, 1:4, :vdim]

    module = normal(nn.MultiheadAttention(4, 2, batch_first=True, kdim=kdim, vdim=vdim))
    net = Reading(module, lambda m, h: m(*parts(h))[0])
    alike(net, Reading(module, lambda m, h: multi_head(m, *parts(h))), sequences(5, 4), *TOKENS, share=1e-8)


@pytest.mark.parametrize("average", [True, False])
def test_the_weights_of_attention_are_relevant_where_they_are_read(average):
    def weights(m, h):
        matrices, biases = m.in_proj_weight.chunk(3), m.in_proj_bias.chunk(3)
        q, k = (heads(F.linear(h, w, b), 2) for w, b in zip(matrices[:2], biases[:2], strict=True))
        found = torch.softmax(q @ k.transpose(-2, -1) / math.sqrt(2), -1)
        return found.mean(1) if average else found

    module = normal(nn.MultiheadAttention(4, 2, batch_first=True))
    net = Reading(module, lambda m, h: m(h, h, h, average_attn_weights=average)[1])
    alike(net, Reading(module, weights), sequences(5, 4), "z", "eps=0.1@flat", share=1e-8)


SCALED = {
    "plain": ({}, None),
    "causal": ({"is_causal": True}, ~CAUSAL),
    "scale": ({"scale": 0.7}, None),
    "mask": ({"attn_mask": ~CAUSAL}, ~CAUSAL),
    "additive": ({"attn_mask": ADDED}, ADDED),
    "fewer heads of keys": ({"enable_gqa": True, "is_causal": True}, ~CAUSAL),
    "causal, fewer keys": ({"is_causal": True}, torch.ones(5, 3, dtype=torch.bool).tril()),
}


@pytest.mark.parametrize("name", SCALED)
def test_scaled_dot_product_attention_in_its_parts(name):
    given, mask = SCALED[name]
    fewer, tokens = "gqa" in str(given), 3 if "fewer keys" in name else 5

    def parts(m, h):
        q, k, v = (
            heads(each, each.shape[-1] // 2) for each in m(h).split([8, 4 if fewer else 8, 4 if fewer else 8], -1)
        )
        return q, k[:, :, :tokens], v[:, :, :tokens]

    def by_hand(m, h):
        q, k, v = parts(m, h)
        k, v = (each[:, [0, 0, 1, 1]] if fewer else each for each in (k, v))
        return dot_product(q, k, v, mask, given.get("scale"))

    layer = normal(nn.Linear(4, 16 if fewer else 24))
    net = Reading(layer, lambda m, h: F.scaled_dot_product_attention(*parts(m, h), **given))
    alike(net, Reading(layer, by_hand), sequences(5, 4), *TOKENS, share=1e-8)


@pytest.mark.parametrize("name", [name for name, (settings, _) in ATTENTION.items() if "bias" not in str(settings)])
def test_by_cp_attention_hands_all_to_its_values(name):
    """The weights being constants; and without biases nothing is lost."""
    given, x = ATTENTION[name][1], sequences(5, 4)
    module = normal(nn.MultiheadAttention(4, 2, bias=False, batch_first=True))
    constant = attends_by_hand(given, lambda a: torch.softmax(a, -1).detach())
    net = Reading(module, attends(given), bias=False)
    found = recorded(net, x, "z,attention=cp", "gamma=0.25,attention=cp@flat")
    other = recorded(Reading(module, constant, bias=False), x, "z", "gamma=0.25@flat")
    for values, expected in zip(found, other, strict=True):
        near(values, expected, 1e-9)
        assert np.allclose(sums(values), plain(net, x)[:, 1], rtol=1e-9)


def encoder(m, h, mask=None, padding=None):
    """By layer norms, attention and linear layers alone."""

    def norm(h, n):
        return standard(h, (2,), n.eps) * n.weight + n.bias

    def attend(h):
        return multi_head(m.self_attn, h, h, h, mask, padding)

    def ahead(h):
        return F.linear(m.activation(F.linear(h, m.linear1.weight, m.linear1.bias)), m.linear2.weight, m.linear2.bias)

    if m.norm_first:
        h = h + attend(norm(h, m.norm1))
        return h + ahead(norm(h, m.norm2))
    h = norm(h + attend(h), m.norm1)
    return norm(h + ahead(h), m.norm2)


def layer(**settings):
    return nn.TransformerEncoderLayer(4, 2, 6, **{"batch_first": True, **settings})


@pytest.mark.parametrize("norm_first", [True, False])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_a_transformers_layer_in_its_parts(norm_first, activation):
    module = normal(layer(activation=activation, norm_first=norm_first))
    # Before the first layer of all a norm hands an input rule's relevance on as it is, its parts do not.
    texts = [text for text in TOKENS if not norm_first or "flat" not in text]
    alike(Reading(module, lambda m, h: m(h)), Reading(module, encoder), sequences(5, 4), *texts, share=1e-7)


def test_transformers_with_masks_in_their_parts():
    def whole(m, h):
        return m(h, mask=CAUSAL, src_key_padding_mask=PADDING[: len(h)])

    def by_hand(m, h):
        return encoder(m.layers[1], encoder(m.layers[0], h, CAUSAL, PADDING[: len(h)]), CAUSAL, PADDING[: len(h)])

    module = normal(nn.TransformerEncoder(layer(), 2, enable_nested_tensor=False))
    alike(
        Reading(module, whole), Reading(module, by_hand), sequences(5, 4), "z", "eps=0.1", "z,attention=cp", share=1e-7
    )


@pytest.mark.parametrize("tokens_first", [True, False])
@pytest.mark.parametrize("tokens", [5, 3])  # three are as many as samples
def test_no_map_of_a_transformer_depends_on_its_batch_mates(tokens_first, tokens):
    def run(m, h):
        return m(h.transpose(0, 1)).transpose(0, 1) if tokens_first else m(h)

    net = Reading(normal(layer(batch_first=not tokens_first, norm_first=True)), run, (tokens, 4))
    no_map_depends_on_its_batch_mates(net, sequences(tokens, 4))


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_no_map_of_frames_depends_on_the_batch_mates_of_their_sample(order):
    """Frames as rows: those of one sample together, or the first ones of all samples."""

    def run(m, h):
        frames = h.unfold(1, 3, 2).transpose(*order)  # (sample, frame, feature, step), or the first two turned round
        rows = torch.relu(m[0](frames.flatten(0, 1)))
        return m[1](rows.flatten(1)).unflatten(0, frames.shape[:2]).transpose(*order)

    module = normal(nn.ModuleList([nn.Conv1d(4, 3, 2), nn.Linear(6, 4)]))
    no_map_depends_on_its_batch_mates(Reading(module, run, (7, 4)), sequences(7, 4))


@pytest.mark.parametrize("gates", [True, False])
def test_attention_by_the_formulas_of_attnlrp(gates):
    """A block h + attention(norm(h)) of one head, in NumPy."""

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.inner = nn.LayerNorm(4), nn.MultiheadAttention(4, 1, bias=False, batch_first=True)
            self.head = nn.Linear(4, 3, bias=False)

        def forward(self, x):
            h = x.transpose(1, 2)
            y = self.norm(h)
            return self.head((h + self.inner(y, y, y)[0]).mean(1))

    net, x = normal(Block()), sequences(5, 4)
    weights = [w.detach().numpy() for w in (*net.inner.in_proj_weight.chunk(3), net.inner.out_proj.weight)]
    norm = net.norm.weight.detach().numpy(), net.norm.bias.detach().numpy()
    [found] = recorded(net, x, "z" if gates else "z,attention=cp")
    for sample, values in zip(x, found, strict=True):
        expected = ref.transformer(sample.T.astype(float), norm, weights, net.head.weight.detach().numpy(), 1, gates)
        near(values, expected.T, 1e-9)
