"""`python -m analysis.commands`: the command `npgd` as a module, as launchers need it."""

from analysis.commands import main

main()
