"""What earlier requests asked for comes with any later one, unless Label Studio would change its class."""

from tests.fakes import Gate, StubEngine
from tests.predict.page import Page


def test_t_brings_the_tracks_of_its_class_and_a_click_all_of_them(make_service) -> None:
    gate = Gate(30)
    page = Page(make_service(StubEngine(gate=gate), response_timeout=0.3))
    car, other, person = page.draw(x=0), page.draw(x=20), page.draw(label="Person", x=40)
    page.press(car)
    page.press(person)
    page.save()
    assert "partial" in page.regions[other]["meta"], "drawn boxes of the class are asked for with it"
    gate.open()
    page.service.scheduler.wait(page.service.scheduler.jobs(9), 30)
    assert page.press(other) == [other, car]
    assert page.regions[person]["value"]["labels"][:1] == ["Person"]
    assert "partial" in page.regions[person]["meta"]
    page.save()
    assert person in page.click(0, 80, 80)
    assert page.frames(person)[-1] == 100
    assert page.regions[person]["value"]["labels"] == ["Person"]


def test_what_was_edited_since_it_was_answered_is_left_alone(make_service) -> None:
    gate = Gate(30)
    page = Page(make_service(StubEngine(gate=gate), response_timeout=0.3))
    car, other = page.draw(x=0), page.draw(x=20)
    page.press(car)
    page.drag(other, 10, y=50)
    page.save()
    gate.open()
    page.service.scheduler.wait(page.service.scheduler.jobs(9), 30)
    assert page.press(car) == [car]
    assert "partial" in page.regions[other]["meta"]


def test_a_click_that_was_overtaken_before_it_had_a_box_comes_with_the_next_gesture(make_service) -> None:
    gate = Gate(0)
    page = Page(make_service(StubEngine(gate=gate), response_timeout=0.2))
    assert page.click(0, 25, 50) == []
    assert page.click(0, 60, 50, label="object 2") == []
    page.save()
    gate.open()
    page.service.scheduler.wait(page.service.scheduler.jobs(9), 30)
    assert len(page.click(0, 61, 50, label="object 2")) == 2
    assert [page.frames(name)[-1] for name in page.regions] == [100, 100]
