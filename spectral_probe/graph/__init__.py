"""The item graph W = RᵀR and the local graphs of the users."""
