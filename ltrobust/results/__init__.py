"""What runs leave behind: facts on disk, read without torch.

A worker adds files and never rewrites one; whoever reads takes the union of what is there. Nothing
is trained, attacked or drawn here.
"""
