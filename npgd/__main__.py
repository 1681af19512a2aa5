"""`python -m npgd`: the command `npgd` as a module, as launchers of several processes need it."""

from npgd_command import main

if __name__ == "__main__":
    main()
