// SPDX-License-Identifier: Apache-2.0
package import CFuzzer
internal import Glibc

/// One fuzz target: its name on the command line and what it does with an input.
package struct FuzzTarget: Sendable {
  package var name: String
  /// Traps when a property does not hold. Depends on the input alone, or a finding could not be
  /// repeated.
  package var body: penstock_fuzz_body

  package init(_ name: String, _ body: @escaping penstock_fuzz_body) {
    self.name = name
    self.body = body
  }
}

/// Names the target to processes that libFuzzer starts, which get its own arguments alone.
private let variable = "PENSTOCK_FUZZ_TARGET"

/// Runs the target that the first argument names, with the other arguments as libFuzzer's own.
package func runFuzzer(_ targets: [FuzzTarget]) -> Never {
  var arguments = CommandLine.arguments
  if arguments.count > 1, targets.contains(where: { $0.name == arguments[1] }) {
    setenv(variable, arguments.remove(at: 1), 1)
  }
  let name = getenv(variable).map { String(cString: $0) }
  guard let target = targets.first(where: { $0.name == name }) else {
    let names = targets.map(\.name).joined(separator: " | ")
    complain("usage: \(arguments.first ?? "fuzz") \(names) [libFuzzer arguments]")
    exit(2)
  }
  // Never freed: libFuzzer keeps the arguments as long as the process lives.
  var pointers = arguments.map { strdup($0) } + [nil]
  let count = Int32(pointers.count - 1)
  exit(
    pointers.withUnsafeMutableBufferPointer { penstock_fuzz(count, $0.baseAddress, target.body) })
}

package func complain(_ text: String) {
  let line = Array((text + "\n").utf8)
  _ = line.withUnsafeBytes { write(2, $0.baseAddress, $0.count) }
}

/// Ends the process when a property does not hold; libFuzzer then keeps the input.
package func check(
  _ holds: Bool, _ text: @autoclosure () -> String, line: UInt = #line, file: StaticString = #fileID
) {
  if holds { return }
  complain("property broken at \(file):\(line): \(text())")
  abort()
}
