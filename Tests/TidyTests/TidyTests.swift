// SPDX-License-Identifier: Apache-2.0
import Foundation
import Testing

/// Rules that a reader notices and a compiler does not.
@Suite struct TidyTests {
  static let root = URL(fileURLWithPath: #filePath)
    .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()

  static func files(in directories: [String], suffix: String) -> [(name: String, text: String)] {
    var found: [(String, String)] = []
    for directory in directories {
      let base = root.appendingPathComponent(directory)
      let names = FileManager.default.enumerator(atPath: base.path)
      let all = names?.compactMap { $0 as? String } ?? []
      for name in all.sorted() where name.hasSuffix(suffix) {
        let path = base.appendingPathComponent(name).path
        guard let text = try? String(contentsOfFile: path, encoding: .utf8) else { continue }
        found.append(("\(directory)/\(name)", text))
      }
    }
    return found
  }

  static let written = ["Sources", "Tests", "Fuzz", "Examples"]

  static let engine = [
    "CPenstock", "PenstockSystem", "PenstockLog", "PenstockCore", "Penstock", "PenstockTesting",
  ].map { "Sources/\($0)" }

  static func lines(_ text: String) -> [Substring] {
    text.split(separator: "\n", omittingEmptySubsequences: false)
  }

  @Test func swiftLinesFitAHundredColumns() {
    let files = Self.files(in: Self.written, suffix: ".swift")
    #expect(files.count > 50)
    for (name, text) in files {
      for (number, line) in Self.lines(text).enumerated() {
        #expect(line.count <= 100, "\(name):\(number + 1) has \(line.count) columns")
        #expect(!line.contains("\t"), "\(name):\(number + 1) has a tab")
      }
    }
  }

  @Test func swiftFilesBeginWithTheLicenceAndStayShort() {
    for (name, text) in Self.files(in: Self.written, suffix: ".swift") {
      #expect(text.hasPrefix("// SPDX-License-Identifier: Apache-2.0\n"), "\(name)")
      #expect(Self.lines(text).count <= 610, "\(name) has \(Self.lines(text).count) lines")
    }
  }

  /// The engine takes files, time and chance from its environment, and never ends its host.
  @Test func theEngineCallsNothingThatIsBanned() {
    let banned = [
      "import Foundation", "print(", "Date(", "try!", "as!", "fatalError(", "exit(", " try?",
      "(try?",
      "TO" + "DO", "Task.sleep",
    ]
    for (name, text) in Self.files(in: Self.engine, suffix: ".swift") {
      for (number, line) in Self.lines(text).enumerated() where !line.contains("///") {
        // The simulated disk may ask whether a name is there; nobody waits for its errors.
        for call in banned where line.contains(call) {
          if call.hasSuffix("try?"), name.hasPrefix("Sources/PenstockTesting") { continue }
          Issue.record("\(name):\(number + 1) has \(call)")
        }
      }
    }
    let outsideSystem = Self.engine.filter {
      $0 != "Sources/PenstockSystem" && $0 != "Sources/PenstockTesting"
    }
    for (name, text) in Self.files(in: outsideSystem, suffix: ".swift") {
      for call in ["clock_gettime", "SystemRandomNumberGenerator", "import Glibc", ".random(in"]
      where text.contains(call) {
        Issue.record("\(name) has \(call), which belongs to PenstockSystem")
      }
    }
  }

  @Test func uncheckedPromisesCarryAReason() {
    for (name, text) in Self.files(in: ["Sources"], suffix: ".swift") {
      let lines = Self.lines(text)
      for (number, line) in lines.enumerated()
      where line.contains("@unchecked Sendable") || line.contains("nonisolated(unsafe)") {
        let near = (number > 0 ? lines[number - 1] : "") + line
        #expect(near.contains("//"), "\(name):\(number + 1) gives no reason")
      }
    }
  }

  /// What an embedder compiles, and what tests of theirs add to it.
  @Test func theEngineStaysSmall() {
    func lines(_ targets: [String]) -> Int {
      [".swift", ".c", ".h"].flatMap { Self.files(in: targets, suffix: $0) }
        .reduce(0) { $0 + Self.lines($1.text).count }
    }
    let testing = "Sources/PenstockTesting"
    let engine = lines(Self.engine.filter { $0 != testing })
    #expect(engine > 1000 && engine < 16_150, "the engine has \(engine) lines")
    let kit = lines([testing])
    #expect(kit > 500 && kit < 2600, "PenstockTesting has \(kit) lines")
  }

  @Test func documentsHaveOneTitle() {
    var documents = Self.files(in: ["Docs", "Sources", "Tests", "Fuzz"], suffix: ".md")
    for name in ["README.md", "CHANGELOG.md"] {
      let path = Self.root.appendingPathComponent(name).path
      documents.append((name, (try? String(contentsOfFile: path, encoding: .utf8)) ?? ""))
    }
    #expect(documents.count > 5)
    for (name, text) in documents {
      var inCode = false
      var titles = 0
      for line in Self.lines(text) {
        if line.hasPrefix("```") { inCode.toggle() }
        if !inCode, line.hasPrefix("# ") { titles += 1 }
      }
      #expect(titles == 1, "\(name) has \(titles) titles")
    }
  }

  /// The first program of each of these documents is one that CI builds: those of the READMEs in a
  /// package of its own.
  @Test(arguments: [
    ("README.md", "Tests/Embedding/Sources/Worker/main.swift"),
    ("Docs/embedding.md", "Tests/Embedding/Sources/OrderWorker/main.swift"),
    (
      "Sources/PenstockTesting/README.md",
      "Tests/Embedding/Tests/WorkerTests/WorkerTests.swift"
    ),
    ("Docs/two-doors.md", "Examples/two-doors/main.swift"),
  ])
  func theProgramOfADocumentIsTheOneThatIsBuilt(_ name: String, _ source: String) throws {
    let readme = try String(
      contentsOf: Self.root.appendingPathComponent(name), encoding: .utf8)
    let program = try String(
      contentsOf: Self.root.appendingPathComponent(source), encoding: .utf8)
    let shown = readme.components(separatedBy: "```swift\n").dropFirst().first?
      .components(separatedBy: "```").first
    let lines = Self.lines(program)
    let built = lines.drop { $0.hasPrefix("// ") }.joined(separator: "\n")
    #expect(shown == built)
  }

  /// Every test that the table of rules names is there, and every test of a rule is named in it.
  @Test func testsOfRulesAreThereAndNamed() throws {
    let path = Self.root.appendingPathComponent("Docs/conformance.md")
    let rows = Self.lines(try String(contentsOf: path, encoding: .utf8)).filter {
      $0.hasPrefix("| ") && !$0.hasPrefix("| ---")
    }
    // The last column of the tables of rules is prose.
    let named = Set(
      rows.flatMap { row in
        let cells = row.components(separatedBy: "|").dropFirst(2).prefix(2)
        return cells.joined().components(separatedBy: "`").enumerated()
          .filter { $0.offset % 2 == 1 }.map(\.element)
      })
    let swift = Self.files(in: ["Tests"], suffix: ".swift")
    let python = Self.files(in: ["Tests/Clients"], suffix: ".py")
    #expect(named.count > 200)
    for name in named {
      let parts = name.split(separator: ".")
      let isThere =
        parts.count == 2
        ? swift.contains {
          $0.text.contains("struct \(parts[0]) {") && $0.text.contains("func \(parts[1])(")
        } : python.contains { $0.text.contains("def \(name)(") }
      #expect(isThere, "\(name) is no test")
    }
    for (file, text) in python where file.hasPrefix("Tests/Clients/test_rules_") {
      for line in Self.lines(text) where line.hasPrefix("def test_") {
        let name = String(line.dropFirst(4).prefix { $0 != "(" })
        #expect(named.contains(name), "\(name) of \(file) is not in Docs/conformance.md")
      }
    }
  }

  /// Links within the documents lead somewhere.
  @Test func linksLeadToFiles() {
    var documents = Self.files(in: ["Docs", "Sources"], suffix: ".md")
    let readme = Self.root.appendingPathComponent("README.md").path
    documents.append(("README.md", (try? String(contentsOfFile: readme, encoding: .utf8)) ?? ""))
    for (name, text) in documents {
      let folder = Self.root.appendingPathComponent(name).deletingLastPathComponent()
      for part in text.components(separatedBy: "](").dropFirst() {
        guard let link = part.split(separator: ")").first, !link.contains("://") else { continue }
        let file = link.split(separator: "#", omittingEmptySubsequences: false).first ?? link
        guard !file.isEmpty else { continue }
        let path = folder.appendingPathComponent(String(file)).path
        #expect(FileManager.default.fileExists(atPath: path), "\(name) links to \(link)")
      }
    }
  }
}
