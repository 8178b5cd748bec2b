"""Tables, charts and static pages made from results."""
