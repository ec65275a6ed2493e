"""What a request says, from its bytes: no sockets, nothing that waits.

paths         its method and target: what it asks for, and whether an inference key may
body_fields   a JSON body: model, streaming, limits
rewrite       the same JSON body with other parameters
multipart     a form: its parts, its model, and the same form with another model
changed_form  the same form with other fields
errors        a failure as the answer that its client can read
near          names close to one that does not exist
"""
