// SPDX-License-Identifier: Apache-2.0
internal import PenstockSystem
internal import Synchronization

/// A history that broke an invariant, as small as it could be made.
package struct Failure: Error, Sendable, CustomStringConvertible {
  package var violation: Violation
  /// What happened, as text that a command can repeat.
  package var history: String
  /// The bug that was planted.
  var canary: Canary?

  package var description: String {
    """
    \(violation)
    Repeat it with: penstock explore \(canary.map { "--canary \($0.rawValue) " } ?? "")--history \
    '\(history)'
    """
  }
}

/// Explores small histories completely and large ones by seed, on several threads.
package struct Explorer: Sendable {
  package var canary: Canary?
  package var threads = 2

  package init() {}

  private struct Found {
    var tally = Tally()
    var failure: (index: Int, violation: Violation)?
  }

  /// Runs `body` for every index on several threads; the failure with the lowest index counts.
  private func run(
    _ count: Int, _ body: @escaping @Sendable (Int, inout Tally) throws(Violation) -> Void
  ) -> (Tally, (index: Int, violation: Violation)?) {
    let next = Mutex(0)
    let found = Mutex(Found())
    let work: @Sendable () -> Void = {
      while true {
        let index = next.withLock { next in
          defer { next += 1 }
          return next
        }
        guard index < count, found.withLock({ $0.failure.map { $0.index > index } ?? true })
        else { return }
        var tally = Tally()
        var violation: Violation?
        do throws(Violation) { try body(index, &tally) } catch { violation = error }
        found.withLock { found in
          found.tally.add(tally)
          if let violation, found.failure.map({ $0.index > index }) ?? true {
            found.failure = (index, violation)
          }
        }
      }
    }
    var others: [SystemThread] = []
    for _ in 1..<max(1, threads) {
      // Without a second thread the first does it all.
      if let thread = try? SystemThread(name: "penstock-explore", work) { others.append(thread) }
    }
    work()
    for thread in others { thread.join() }
    return found.withLock { ($0.tally, $0.failure) }
  }

  // MARK: Small histories

  /// Explores every history of a family, or every `stride`th.
  package func explore(_ family: Family, stride: Int = 1) -> (Tally, Failure?) {
    let indexes = family.indexes(stride: stride)
    let (tally, failure) = run(indexes.count) { (index, tally) throws(Violation) in
      let history = family.history(indexes[index])
      try exploration(family, history.steps).explore(
        history.steps, lastSteps: history.lastSteps, &tally)
    }
    return (
      tally,
      failure.map {
        Failure(
          violation: $0.violation, history: Step.text(family.history(indexes[$0.index]).steps),
          canary: canary)
      }
    )
  }

  private func exploration(_ family: Family, _ steps: [Step]) -> Exploration {
    var exploration = Exploration(setup: Setup(steps, canary))
    exploration.limit = family.limit
    return exploration
  }

  // MARK: Large histories

  /// Runs histories by seed, from `seed` on.
  package func swarm(seed: UInt64, count: Int) -> (Tally, Failure?) {
    let (tally, failure) = run(count) { (index, tally) throws(Violation) in
      try Self.run(Swarm.history(seed: seed &+ UInt64(index)), canary, &tally)
    }
    guard let failure else { return (tally, nil) }
    let history = Swarm.history(seed: seed &+ UInt64(failure.index))
    let shrunk = shrink(history, failure.violation)
    let text = Step.text(shrunk.history)
    return (tally, Failure(violation: shrunk.violation, history: text, canary: canary))
  }

  /// Runs one history as it is, and explores every crash of it.
  ///
  /// - Parameter lastSteps: of its last steps only.
  package func replay(_ history: [Step], lastSteps: Int = .max) -> (Tally, Failure?) {
    var tally = Tally()
    do throws(Violation) {
      try Self.run(history, canary, &tally)
      try Exploration(setup: Setup(history, canary)).explore(history, lastSteps: lastSteps, &tally)
    } catch {
      return (tally, Failure(violation: error, history: Step.text(history), canary: canary))
    }
    return (tally, nil)
  }

  private static func run(
    _ history: [Step], _ canary: Canary?, _ tally: inout Tally
  ) throws(Violation) {
    let world = World(Setup(history, canary))
    defer {
      tally.histories += 1
      tally.points += world.ends
      tally.checks.add(world.checks)
      tally.hash &+= world.trace.value
    }
    try world.run(history)
    try world.finish()
  }

  /// Leaves out steps, many at first, as long as the same invariant breaks.
  private func shrink(
    _ history: [Step], _ violation: Violation
  ) -> (history: [Step], violation: Violation) {
    var best = (history: history, violation: violation)
    func attempt(_ candidate: [Step]) -> Bool {
      var tally = Tally()
      do throws(Violation) {
        try Self.run(candidate, canary, &tally)
        return false
      } catch {
        guard error.invariant == violation.invariant else { return false }
        best = (candidate, error)
        return true
      }
    }
    var chunk = max(1, history.count / 2)
    while true {
      var isSmaller = false
      var start = 1
      while start < best.history.count {
        var candidate = best.history
        candidate.removeSubrange(start..<min(start + chunk, candidate.count))
        if attempt(candidate) { isSmaller = true } else { start += chunk }
      }
      if chunk == 1 && !isSmaller { return best }
      if !isSmaller || chunk > 1 { chunk = max(1, chunk / 2) }
    }
  }
}
