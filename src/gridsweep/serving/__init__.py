"""From a finished adapter to an editor: which server, is it well, what to paste where."""
