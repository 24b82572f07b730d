"""Tests of the rooms of FreLLM4Rec."""
