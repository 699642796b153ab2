// SPDX-License-Identifier: Apache-2.0
import Foundation
import Testing

/// Everything that is public says what it is.
@Suite struct Documentation {
  static let documented =
    TidyTests.engine + ["PenstockServer", "PenstockCodable", "PenstockSQS"].map { "Sources/\($0)" }

  /// The name of a public declaration; nil when a line is none.
  static func publicName(_ line: Substring) -> String? {
    var words = line.split(separator: " ")[...]
    while let word = words.first, word.hasPrefix("@") { words = words.dropFirst() }
    guard let first = words.first, first == "public" || first == "open",
      !words.contains("import"), !words.contains("extension"), words.dropFirst().first != "="
    else { return nil }
    return name(words)
  }

  private static func name(_ words: ArraySlice<Substring>) -> String {
    let kinds: Set<Substring> = [
      "func", "var", "let", "struct", "enum", "class", "actor", "protocol", "typealias", "case",
    ]
    guard let kind = words.firstIndex(where: { kinds.contains($0) }), kind + 1 < words.endIndex
    else { return "init" }
    let name = words[kind + 1]
    let letters = name.prefix { $0.isLetter || $0.isNumber || $0 == "_" }
    return String(letters.isEmpty ? name : letters)
  }

  /// What public protocols of ours ask for, and those of the standard library: whoever conforms
  /// need not say it again.
  static func requirements(_ files: [(name: String, text: String)]) -> Set<String> {
    var names: Set<String> = [
      "description", "<", "==", "makeAsyncIterator", "Iterator", "next", "rawValue", "advanced",
      "duration", "hash",
    ]
    for (_, text) in files {
      var isInside = false
      for line in TidyTests.lines(text) {
        if line.hasPrefix("public protocol ") { isInside = true }
        if line.hasPrefix("}") { isInside = false }
        let words = line.split(separator: " ").drop { $0 == "mutating" }
        if isInside, let first = words.first, first == "func" || first == "var" {
          names.insert(name(words))
        }
      }
    }
    return names
  }

  @Test func everyPublicDeclarationHasADocComment() {
    let files = TidyTests.files(in: Self.documented, suffix: ".swift")
    let known = Self.requirements(files)
    #expect(known.isSuperset(of: ["syncDirectory", "wallMilliseconds", "encode", "first"]))
    var count = 0
    for (name, text) in files {
      let lines = TidyTests.lines(text)
      for (number, line) in lines.enumerated() {
        guard let declared = Self.publicName(line) else { continue }
        count += 1
        var above = number - 1
        while above >= 0, lines[above].drop(while: { $0 == " " }).hasPrefix("@") { above -= 1 }
        let isDocumented = above >= 0 && lines[above].drop { $0 == " " }.hasPrefix("///")
        #expect(
          isDocumented || known.contains(declared),
          "\(name):\(number + 1) says nothing of \(declared)")
      }
    }
    #expect(count > 600, "only \(count) public declarations were found")
  }

  @Test(arguments: [
    ("  public var count = 0", "count"), ("public struct A<B>: C {", "A"),
    ("  @safe public final class D {", "D"), ("    open = newBatch()", nil),
    ("public import PenstockCore", nil), ("  public init(", "init"),
    ("@discardableResult public func send(_ x: Int) {", "send"),
    ("  public static func < (a: A, b: A) -> Bool {", "<"),
    ("  public mutating func next() async -> Int? {", "next"), ("  private var x = 1", nil),
    ("  public private(set) var end: Int", "end"), ("public extension A {", nil),
  ])
  func publicDeclarationsAreRecognised(_ line: String, _ name: String?) {
    #expect(Self.publicName(line[...]) == name)
  }
}
