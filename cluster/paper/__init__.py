"""The whole paper as stages that depend on each other; knows no scheduler."""
