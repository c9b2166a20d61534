"""What a verdict on a clip does not say; on the timeline and in the app."""

LIMITS = (
    "This model detects faces that were generated as a whole. A generated or other person's face put into a real video "
    "(a face swap), or lips moved to other words, is another task, for which it was neither trained nor tested.",
    "The frames of a clip are alike, so a long clip is no more certain than one of its frames. Video compression "
    "removes traces that the model looks for; how often it is wrong was measured on images, not on videos.",
)
