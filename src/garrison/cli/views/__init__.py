"""What commands print: pages, lines and progress. Takes values and renders them; decides nothing and asks no target."""
