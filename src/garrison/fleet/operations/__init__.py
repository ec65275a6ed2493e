"""What a user asks for: apply, adopt, forget, discover, repair. Each composes the rooms below and knows no terminal."""
