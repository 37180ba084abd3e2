"""Labels by people: read from files, kept in topic `labels`, what to label next, how far labellers agree, labels over what users did."""
