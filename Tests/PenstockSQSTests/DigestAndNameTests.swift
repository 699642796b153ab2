// SPDX-License-Identifier: Apache-2.0
import Penstock
import PenstockSQS
import Testing

private func string(_ name: String, _ value: String, type: String = "String") -> MessageAttribute {
  MessageAttribute(name: name, type: type, value: .string(value))
}

@Suite struct MD5Digests {
  @Test(arguments: [
    ("hello", "5d41402abc4b2a76b9719d911017c592"),
    ("Grüße 🐝\r\n", "92771d33ac54030ec32b63ffcc32fab4"),
  ])
  func ofBodies(_ body: String, _ digest: String) {
    #expect(Digests.ofBody(Array(body.utf8)) == digest)
  }

  @Test func ofNoAttributesIsAbsent() {
    #expect(Digests.ofAttributes([]) == nil)
  }

  @Test func ofTheWorkedExample() {
    let attributes = [
      string("n", "42", type: "Number.int"), string("city", "Zürich"),
      MessageAttribute(name: "blob", type: "Binary", value: .binary([0, 1, 255])),
    ]
    #expect(Digests.ofAttributes(attributes) == "989d8b49eef0e51cce3154ca7e3418f6")
    #expect(Digests.ofAttributes(attributes.reversed()) == "989d8b49eef0e51cce3154ca7e3418f6")
  }

  static let recorded: [([MessageAttribute], String)] = [
    ([string("k", "x")], "a45daa70926828a2f0a1db3418e6feb4"),
    (
      [string("timestamp", "1493147359900", type: "Number")], "235c5c510d26fb653d073faed50ae77c"
    ),
    (
      [string("General", "Kenobi"), string("Hello", "There"), string("Help.Me", "Me")],
      "4c360f3fdafd970e05fae2f149d997f5"
    ),
    ([string("General", "Kenobi"), string("Hello", "There")], "fca026605781cb4126a1e9044df24232"),
    (
      [string("color", "blue"), string("tags", "[\"a\",\"b\"]", type: "String.Array")],
      "56a5bee3ed610a27fd04b2b195aee70b"
    ),
    (
      [
        string(
          "AWSTraceHeader",
          "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1")
      ], "5ae4d5d7636402d80f4eb6d213245a88"
    ),
    (
      [
        MessageAttribute(
          name: "attr1", type: "Binary",
          value: .binary(
            Array("traceparent".utf8) + [0x1e]
              + Array("00-774062d6c37081a5a0b9b5b88e30627c-2d2482211f6489da-01".utf8)))
      ], "8cbe4db156db8a94db8b801b7addb984"
    ),
  ]

  @Test(arguments: recorded)
  func ofRecordedAttributes(_ attributes: [MessageAttribute], _ digest: String) {
    #expect(Digests.ofAttributes(attributes) == digest)
  }
}

@Suite struct QueueAddresses {
  @Test(arguments: [
    ("http://localhost:9324/000000000000/demo", "000000000000", "demo"),
    ("https://sqs.eu-west-1.amazonaws.com/123456789012/a.fifo", "123456789012", "a.fifo"),
    ("HTTP://h/1/q/", "1", "q"), ("http://h//1//q", "1", "q"), ("http://h/1/q?x=/y#z", "1", "q"),
    ("http://h/queue/us-east-1/1/q", "1", "q"), ("1/q", "1", "q"), ("/1/q", "1", "q"),
    ("http://[::1]:9/1/a%2Db", "1", "a-b"), ("queue/r/1/q", "1", "q"),
  ])
  func nameAccountAndQueue(_ text: String, _ account: String, _ name: String) {
    let address = QueueAddress(parsing: text)
    #expect(address?.account == account)
    #expect(address?.name == name)
  }

  @Test func bareNameIsOfTheCallersAccount() {
    let address = QueueAddress(parsing: "demo")
    #expect(address != nil)
    #expect(address?.account == nil)
    #expect(address?.name == "demo")
  }

  @Test(arguments: [
    "", "/", "//", "http://", "http://h", "http://h/", "http://h/q", "http://h/a/b/c",
    "http://h/x/r/1/q", "ftp://h/1/q", "://h/1/q", "a/b/c", "http://h/1/%zz", "http://h/1/%",
    "http://h/1/%ff", "http:///1", "?", "#", "http://h?/1/q",
  ])
  func othersAreRefused(_ text: String) {
    #expect(QueueAddress(parsing: text) == nil)
  }

  @Test func longOnesAreRefused() {
    #expect(QueueAddress(parsing: String(repeating: "a", count: 1 << 20)) == nil)
    #expect(QueueAddress(parsing: String(repeating: "/a", count: 900)) == nil)
  }
}

@Suite struct Alphabets {
  @Test(arguments: ["a", "Z9_-", String(repeating: "q", count: 80)])
  func queueNames(_ name: String) { #expect(QueueName.isValid(name)) }

  @Test(arguments: ["", "a b", "ä", "a.fifo", "a/b", "\0", String(repeating: "q", count: 81)])
  func noQueueNames(_ name: String) { #expect(!QueueName.isValid(name)) }

  @Test(arguments: ["a", "\t\n\r ~\u{7f}", "\u{d7ff}\u{e000}\u{fffd}\u{10000}\u{10ffff}", "🐝"])
  func wireText(_ text: String) { #expect(Alphabet.isWireText(Array(text.utf8))) }

  @Test(arguments: ["\0", "a\u{8}", "\u{13}", "\u{b}", "\u{1f}", "x\u{fffe}", "\u{ffff}"])
  func noWireText(_ text: String) { #expect(!Alphabet.isWireText(Array(text.utf8))) }

  @Test(arguments: [
    "0", "-1", "+1", "1.5", ".5", "5.", "1e10", "1E-10", "1493147359900", "00012.500",
    String(repeating: "9", count: 38), "1e126", "1e-128", "0e99999999999999999999",
  ])
  func numbers(_ text: String) { #expect(AttributeRules.isNumber(text)) }

  @Test(arguments: [
    "", "-", ".", "e1", "1e", "1e+", "a", "1a", " 1", "1 ", "1,5", "0x10", "NaN", "--1", "1..2",
    String(repeating: "9", count: 39), "1e127", "1e-129", "1e99999999999999999999", "١",
  ])
  func noNumbers(_ text: String) { #expect(!AttributeRules.isNumber(text)) }
}

@Suite struct AttributeFilters {
  private let names = ["Hello", "Help.Me", "color", "General"]

  @Test(arguments: [
    (["All"], ["Hello", "Help.Me", "color", "General"]),
    ([".*"], ["Hello", "Help.Me", "color", "General"]),
    (["*"], ["Hello", "Help.Me", "color", "General"]),
    (["Hel.*"], ["Hello", "Help.Me"]), (["col.*"], ["color"]), (["Help"], []),
    (["Help.Me", "General"], ["Help.Me", "General"]), (["AWS.", "..foo", ""], []), ([], []),
    (["hello"], []),
  ])
  func choose(_ patterns: [String], _ expected: [String]) {
    let filter = AttributeFilter(patterns)
    #expect(names.filter { filter($0) } == expected)
  }
}
