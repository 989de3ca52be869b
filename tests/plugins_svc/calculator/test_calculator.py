"""The calculator plugin: the forms that MOSS's training data records, and what it refuses."""

import pytest

from plugins_svc.calculator.plugin import Calculator
from plugins_svc.calculator.spec import CALCULATOR
from plugins_svc.expressions.arithmetic import MAX_CHARS
from plugins_svc.sdk.output import PluginOutput
from tests.support.plugin_checks import check_plugin


async def test_it_is_a_plugin() -> None:
    good = ("5^3", "60/6", "1" + "+1" * 49, "p=3;p*p")
    await check_plugin(CALCULATOR, {}, good, ("", "x", "1/0", "1" * (MAX_CHARS + 1)))


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("5^3", "125"),
        ("5**3", "125"),
        ("60/6", "10.0"),
        ("8*8", "64"),
        ("7//2", "3"),
        ("(3+4*2)/(1-5)", "-2.75"),
        ("-7-35*4", "-147"),
        ("-2^2", "-4"),
        ("2^3^2", "512"),
        ("10^16", "10000000000000000"),
        ("500*(1-0.45)", "275.0"),
        ("29-24.7", "4.300000000000001"),
        ("8^(1/3)", "2.0"),
        ("6e8-4e8", "200000000.0"),
        ("1.5E-3*2", "0.003"),
        ("0b1101", "13"),
        ("sqrt(100)", "10.0"),
        ("pow(2,10)", "1024"),
        ("ceil(7/2)", "4"),
        ("floor(7/2)", "3"),
        ("sin(30)", "-0.9880316240928618"),
        ("cos(0)", "1.0"),
        ("atan(tan(0.5))", "0.5"),
        ("ln(e)", "1.0"),
        ("log(8,2)", "3.0"),
        ("exp(0)", "1.0"),
        ("max(1,2.5,2)", "2.5"),
        ("min(4,3)", "3"),
        ("abs(-3)", "3"),
        ("pi*7", "21.991148575128552"),
        ("p=(3+4+5)/2;sqrt(p*(p-3)*(p-4)*(p-5))", "6.0"),
        ("a=2;b=a^2;a+b", "6"),
        (" 1 +\t1 ; ", "2"),
        ("1,000+2", "1002"),
        ("1,234,567.5*2", "2469135.0"),
        ("１，０００×２", "2000"),
        ("6÷4−1", "0.5"),
        ("（5²+1）", "26"),
        ("sqrt(1,000,000)", "1000.0"),
        ("max(1500, 1,200)", "1500"),
        ("pow(2,100)", "1267650600228229401496703205376"),
        ("max(100,200)", "200"),
        ("max(3，4、5)", "5"),
        ("π*7", "21.991148575128552"),
    ],
)
async def test_values_are_written_as_python_prints_them(expression: str, expected: str) -> None:
    assert await Calculator().run(expression) == PluginOutput(True, (expected,))


@pytest.mark.parametrize(
    "expression",
    [
        "", ";", "()", "(1+2", "1+2)", "2*", "1..2", "007", "1_000", "1,2", "a=1;b=2",
        "x+1", "(a+b)-b", "b=14-c;a=10-c-b", "2x", "2(3)", "(2)(3)", "a=b=2;a", "x=50",
        "1==1", "1700>=1600", "5!", "5%3", "20%", "12美元*3", "每天多少", "10m/2", "sqrt[4]",
        "max([1],[2])", "'a'*9", '"a"', "1 if 2 else 3", "lambda: 1", "[1][0]", "{1}", "True",
        "None", "...", "1;2", "1+1;a=1", "sqrt", "sqrt()", "sqrt(1,2)", "max()", "max(1)",
        "pow(2,10,mod=7)", "max(*1)", "round(1.5)", "1\n2", "import os", "del pi", "a+=1;a",
        "max(1,500,1,200)", "max(1,500,200)", "min(2,1,500)", "max(1,000)", "max(1,5, 2)", "1,2,3",
        "12,34", "0,5*2", "1,00", "1,2345", "1 000",
        "1'000", "0,500", "1.000,5", "5²³", "3万", "5°",
        "2-3亿", "1~5", "3 1/2", "½", "2x3", "max(0,500)+0,5", "1\0,000",
        "1/0", "0^-1", "sqrt(-1)", "log(0)", "asin(2)",
    ],
)  # fmt: skip
async def test_everything_else_has_no_result(expression: str) -> None:
    assert await Calculator().run(expression) == PluginOutput.no_result()
