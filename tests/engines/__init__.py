"""Workers: segments, mailboxes in use, workers that die, and engines that drive them."""
