"""A text that breaks pages and tables wherever it is not escaped."""

HOSTILE = "</script><img src=x onerror=alert(1)>|`*&\"'"
