"""How a training is spread over devices, each giving the weights that one device would."""
