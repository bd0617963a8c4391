"""White matter hyperintensity (WMH) segmentation with a Siamese content loss: the code shared by the notebooks.

The core follows the paper (Mac, Moody and Khademi, MIDL 2020). In reading order, with the paper's sections:

    study       a study: its configuration and its paths
    cohort      a folder of scans as a table, and its split (3.1)
    slices      a volume as preprocessed axial slices, and back (3.2.1)
    batches     slices as augmented training batches (3.2.1)
    generator   the dense-block U-Net (2.1, Figure 2)
    features    pretrained networks whose feature maps are compared: VGG19 and others (2.2)
    siamese     the Siamese content loss, Equation 1 (2.2, Figure 3)
    losses      the registry of losses; Dice, Tversky, generalized Dice (3.2.4)
    learner     a network with its loss
    minmax      the adversary of the min-max game (5)
    training    one `fit` for every loss (3.2.2)
    gpu         the same on a GPU: slices stay on the device, with many steps per call
    inference   from a scan to a mask on the scan's own grid
    metrics     the metrics of the WMH Challenge (3.2.3)

`settings` has every setting of a configuration, `augmentations` what changes a slice in training. The packages are not
needed to understand the paper: `intake` (reading and downloading scans and weights, synthetic scans), `evaluation`
(tables from masks, with intervals), `report` (figures, viewers, pages), `apply` (notebook 07, the bundled networks) and
`running` (files, locks, configurations, parameters, checkpoints, provenance, commands). README.md lists the modules.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # hide TensorFlow's start-up messages
