"""The commands of the command line, one module and one class each: the fields of the class are the options."""
