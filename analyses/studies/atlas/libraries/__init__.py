"""The losses of every library, by field; a function for each library, which is called in its environment alone."""

from analyses.studies.atlas.libraries import distillation, installed, trainers, translation, vision
