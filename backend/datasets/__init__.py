"""Datasets to train on: pictures cut from videos, with the labels of their objects, in the formats of other tools."""
