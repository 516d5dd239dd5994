"""How checks report: findings, the rules behind them, and the formats for people, programs and workflows.

``llm-common lint`` and ``llm-common check`` share it, so that both can be read by the same tools.
"""
