"""The API for the bank's own application: connect sessions by customer number, with a key and without staff.

Thin: each address asks one service. Texts are in English, for who writes the program; codes are for the program.
"""
