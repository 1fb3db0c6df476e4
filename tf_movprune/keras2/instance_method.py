"""Methods that one model has in place of its class's."""


class InstanceMethod:
    """A callable in the place of a method of one model, which its clones do not take over."""
