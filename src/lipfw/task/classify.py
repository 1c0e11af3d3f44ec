"""Classification: which of several classes a picture belongs to."""
from lipfw.errors import InputError
from lipfw.image.classes import Labelled


class Classify:
    """Train on the training pictures of a labelled data set, and test on its test pictures."""

    does = "trains a classifier"

    def __call__(self, data: Labelled) -> Labelled:
        """Return the data set. Raises InputError for pictures without labels."""
        if not isinstance(data, Labelled):
            raise InputError("task=classify takes pictures with labels, and image= names pictures without; use "
                             "image=lfw_labelled, image=cifar10_small, or image=labelled image.path=FILE_OR_FOLDER")
        return data
