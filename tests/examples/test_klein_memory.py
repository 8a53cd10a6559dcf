"""The table of klein's memory: it prints what the guide says, and the plan is above what a step keeps."""

import klein_memory


def test_the_table(capsys):
    klein_memory.main(["--references", "3"])
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.startswith("3.88 billion weights")
    assert [row.split()[0] for row in rows] == ["bf16", "nf4", "fp8"]


def test_a_training_step_keeps_no_more_than_the_plan_says():
    plain, checkpointed = klein_memory.count_kept(num_tokens=48, num_words=16, heads=1)
    blocks = 25
    planned = [n / blocks for n in klein_memory.kept_values(blocks)]
    assert 0.5 * planned[0] < plain <= planned[0]
    assert checkpointed < planned[1]
