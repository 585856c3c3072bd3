"""HoliTom and its parts."""
