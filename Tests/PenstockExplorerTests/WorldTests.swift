// SPDX-License-Identifier: Apache-2.0
import PenstockExplorer
import Testing

@Suite struct Placeholder {
  @Test func small() {
    for family in Family.all(length: 1) {
      let clock = ContinuousClock()
      var result: (Tally, Failure?)?
      let time = clock.measure { result = Explorer().explore(family) }
      guard let (tally, failure) = result else { return }
      print(family.name, family.count, "states", tally.states, "distinct", tally.distinct, "capped", tally.capped, "damages", tally.damages, tally.refused, tally.harmless, time)
      if let failure { print(failure) }
    }
  }
}
