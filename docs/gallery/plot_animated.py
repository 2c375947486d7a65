"""
A heat map that moves
=====================

Layers of one network against each other while it is trained: blocks of similar layers
form and dissolve. ``film.save("film.gif", writer="pillow")`` keeps it;
:func:`repsim.plot.slider` puts the steps under one's hand.
"""

# sphinx_gallery_thumbnail_path = 'heat.png'
import repsim

data = repsim.datasets.load("digits")
inputs, labels = repsim.datasets.to_tensors(data, "flat")
net = repsim.networks.mlp(64, hidden=[48] * 6, classes=10, seed=0)
rule = repsim.learning.make("bp", net, lr=2e-3)
moments = [0, 2, 5, 10, 20, 40, 80, 160]
with repsim.Recorder(rule, inputs[:300], steps=moments) as recorder:
    repsim.train(rule, data, 160, callbacks=[recorder], progress=False)

cells = repsim.compare(recorder.dataset())
film = repsim.plot.animate(cells, interval=600)
