from __future__ import annotations

from flows.gate import Score, decide
from flows.settings import GateSettings

SETTINGS = GateSettings(margin=0.01, code_score_drop=0.01, min_ratio=2.0, min_code_score=0.1)
CHAMPION = Score(model_bytes=20_000, bits_per_row=80.0, code_score=0.5, ratio=8.0)


def judge(
    champion: Score | None = CHAMPION, obstacle: str | None = None, **changes: float
) -> tuple[bool, str]:
    challenger = CHAMPION.model_copy(update=changes)
    verdict = decide(challenger, champion, rows=10_000, settings=SETTINGS, obstacle=obstacle)
    return verdict.promote, verdict.text


def test_bytes_are_of_the_model_and_every_row() -> None:
    assert CHAMPION.total_bytes(10_000) == 20_000 + 80 * 10_000 / 8


def test_smaller_by_the_margin_wins() -> None:
    assert judge(bits_per_row=70.0) == (
        True,
        "107,500 bytes against the champion's 120,000 (10.42% smaller); code score 0.500 against 0.500",
    )


def test_equal_or_barely_smaller_loses() -> None:
    assert judge()[0] is False
    assert judge(bits_per_row=79.5) == (
        False,
        "119,375 bytes against the champion's 120,000 (0.52% smaller): below the margin of 1.00%",
    )


def test_what_may_be_chance_loses() -> None:
    def sure(bits_error: float, settings: GateSettings = SETTINGS) -> tuple[bool, str]:
        challenger = CHAMPION.model_copy(update={"bits_per_row": 76.0})  # 4 bits of 96, with the model's
        verdict = decide(challenger, CHAMPION, rows=10_000, settings=settings, bits_error=bits_error)
        return verdict.promote, verdict.reasons[0]

    size = "115,000 bytes against the champion's 120,000 (4.17% smaller, standard error"
    assert sure(1.9) == (True, f"{size} 1.98%)")
    assert sure(2.1) == (False, f"{size} 2.19%): not by 2 standard errors, so perhaps by chance")
    assert sure(float("inf"))[0] is False
    assert sure(2.1, SETTINGS.model_copy(update={"standard_errors": 1.0}))[0] is True
    assert sure(50.0, SETTINGS.model_copy(update={"standard_errors": 0.0}))[0] is True


def test_a_larger_model_may_eat_the_gain() -> None:
    assert judge(bits_per_row=70.0, model_bytes=40_000)[0] is False


def test_what_is_larger_is_called_larger() -> None:
    assert judge(bits_per_row=80.192) == (
        False,
        "120,240 bytes against the champion's 120,000 (0.20% larger): below the margin of 1.00%",
    )


def test_a_lower_code_score_loses_whatever_the_bytes() -> None:
    assert judge(bits_per_row=40.0, code_score=0.48) == (
        False,
        "code score 0.480 against 0.500: drops by more than 0.01",
    )
    assert judge(bits_per_row=40.0, code_score=0.495)[0] is True


def test_floors_are_of_its_own_columns_the_comparison_of_both() -> None:
    def shared(score: float, own: float) -> tuple[str, ...]:
        challenger = CHAMPION.model_copy(update={"bits_per_row": 40.0, "code_score": own})
        return decide(challenger, CHAMPION, rows=10_000, settings=SETTINGS, compared_score=score).reasons

    assert shared(0.4, own=0.9) == ("code score 0.400 against 0.500: drops by more than 0.01",)
    assert shared(0.495, own=0.3)[-1] == "code score 0.495 against 0.500"
    assert shared(0.495, own=0.05) == ("code score 0.050 is below the floor of 0.1",)


def test_floors() -> None:
    assert judge(bits_per_row=40.0, ratio=1.5) == (False, "ratio 1.500 is below the floor of 2.0")
    assert judge(None, ratio=1.5)[0] is False
    assert judge(None, code_score=0.05)[0] is False
    assert judge(None) == (True, "no champion yet, and every floor holds")


def test_dead_latents() -> None:
    settings = GateSettings(max_dead_latents=0.5)
    score = CHAMPION.model_copy(update={"dead_latents": 0.75})
    verdict = decide(score, None, rows=1, settings=settings)
    assert verdict.reasons == ("75% of latents never vary, above the ceiling of 50%",)


def test_an_obstacle_is_final() -> None:
    assert judge(bits_per_row=1.0, obstacle="it was rolled back") == (False, "it was rolled back")
    assert judge(None, obstacle="another schema")[0] is False
