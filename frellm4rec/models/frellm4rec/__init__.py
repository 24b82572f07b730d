"""FreLLM4Rec: its settings and the model."""
