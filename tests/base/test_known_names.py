from garrison.base.known_names import known_names

MANY = [f"edge-{number:02}" for number in range(34)]


def test_near_names_come_first_then_others_then_a_count():
    said = known_names("gonee", [*MANY, "gone"])
    assert said == "Did you mean 'gone'? On record: gone, " + ", ".join(MANY[:9]) + " and 25 more."


def test_without_a_near_one():
    assert known_names("zzz", MANY) == "On record: " + ", ".join(MANY[:10]) + " and 24 more."


def test_a_few_are_all_shown():
    assert known_names("zzz", ["b", "a", "b"], "Known targets") == "Known targets: b, a."


def test_upper_case_is_near():
    assert known_names("LAB", ["other", "lab", "Lab"]) == "Did you mean 'lab'? On record: lab, Lab, other."


def test_none():
    assert known_names("zzz", []) == "On record: none."
