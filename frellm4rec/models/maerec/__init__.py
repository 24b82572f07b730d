"""MAERec: item vectors propagated on a graph of transitions, of which a part is masked and reconstructed."""
