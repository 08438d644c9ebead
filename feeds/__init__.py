"""Hold one module or package for each venue, found by its name.

In an installed wheel this package is named `ingestor_feeds` (docs/adr/0020), so a venue's modules
import each other relatively.
"""
