"""``python -m llm_common`` is the command ``llm-common``, also where the script isn't on the path."""

from llm_common.cli import main

main()
