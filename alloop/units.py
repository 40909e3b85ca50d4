"""Units. Inside: eV, Å, eV/Å, eV/Å^3 (ASE sign), fs, K. Conversions live here and nowhere else."""

# CODATA 2018. ASE and PySCF have those of 2014 by default: 1e-8 relative beside these, below what any label is good for.
EV_PER_HARTREE = 27.211386245988
ANGSTROM_PER_BOHR = 0.529177210903
EV_PER_ANGSTROM_PER_HARTREE_PER_BOHR = EV_PER_HARTREE / ANGSTROM_PER_BOHR
EV_PER_KCAL_PER_MOL = 0.0433641043
KCAL_PER_MOL_PER_EV = 1.0 / EV_PER_KCAL_PER_MOL
BOLTZMANN_EV_PER_KELVIN = 8.617333262e-5
EV_PER_GIGAPASCAL_CUBIC_ANGSTROM = 1.0 / 160.21766208

ENERGY_UNITS = {
    "eV": 1.0,
    "meV": 1e-3,
    "kcal/mol": EV_PER_KCAL_PER_MOL,
    "kJ/mol": EV_PER_KCAL_PER_MOL / 4.184,
    "Hartree": EV_PER_HARTREE,
    "Rydberg": 0.5 * EV_PER_HARTREE,
}
FORCE_UNITS = {
    "eV/Angstrom": 1.0,
    "meV/Angstrom": 1e-3,
    "kcal/mol/Angstrom": EV_PER_KCAL_PER_MOL,
    "kJ/mol/Angstrom": EV_PER_KCAL_PER_MOL / 4.184,
    "Rydberg/bohr": 0.5 * EV_PER_ANGSTROM_PER_HARTREE_PER_BOHR,
    "Hartree/bohr": EV_PER_ANGSTROM_PER_HARTREE_PER_BOHR,
    "eV/bohr": 1.0 / ANGSTROM_PER_BOHR,
    "Hartree/Angstrom": EV_PER_HARTREE,
}
STRESS_UNITS = {
    "eV/Angstrom^3": 1.0,
    "GPa": EV_PER_GIGAPASCAL_CUBIC_ANGSTROM,
    "kbar": 0.1 * EV_PER_GIGAPASCAL_CUBIC_ANGSTROM,
    "Hartree/bohr^3": EV_PER_HARTREE / ANGSTROM_PER_BOHR**3,
}
LENGTH_UNITS = {"Angstrom": 1.0, "bohr": ANGSTROM_PER_BOHR, "nm": 10.0, "pm": 0.01}
