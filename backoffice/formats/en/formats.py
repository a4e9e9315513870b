"""Short dates in English that nobody can read the wrong way round: 11/20/2026 and 20/11/2026 are both read here."""

SHORT_DATE_FORMAT = "j M Y"
SHORT_DATETIME_FORMAT = "j M Y, P"
