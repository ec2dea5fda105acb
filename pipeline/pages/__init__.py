"""What people look at: the report's template and its charts."""
