"""What this machine is."""


def cores():
    import psutil

    return psutil.cpu_count(logical=False) or 1


def free_memory():
    import psutil

    return psutil.virtual_memory().available
