"""The workers of the gateway, as the control process sees them: started, adopted, told what there is, replaced.

routes         what there is, as values: targets and routes of instances and nodes
door           one worker: a door of the instance manager, and whoever waits for a cold instance through it
workers        all of them
records        which workers there are, for the next control process
"""
