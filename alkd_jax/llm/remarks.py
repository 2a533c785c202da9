"""What the words around a list say of it: that it is not the ranking, is changed afterwards, or ends with the best.

The words are those of the languages in which models answer; nothing here reads an order.
"""

import re

_MOST_TO_LEAST = re.compile(r"\bmost\b[^.;:\n]{0,40}?\bto\b[^.;:\n]{0,12}?\bleast\b", re.IGNORECASE)
_NEVER = re.compile(
    r"\b(?:exclud|reject|not\b|unlikely|least\b|omit|left out|discard|ruled out|draft|initial|first (?:pass|guess|idea"
    r"|thought)|tentative|preliminary|previous|wrong|instead of|rather than|for example|e\.g\.|examples?\b|skip|dropped"
    r"|removed|avoid|honou?rable|alternativ|worst|never\b|unknown|unfamiliar|eliminat|losers?\b|round [0-9]"
    r"|release (?:order|date|year)|order of release|chronolog|by (?:title|name|year|id)\b"
    r"|nicht\b|kein|unwahrscheinlich|ausgeschlossen|entwurf|pas\b|exclu|écart|descart|improb|não\b|no (?:recom|son|es)"
    r"|borrador|rascunho|brouillon|bozza|sconsigli|esclus|improbabil|niet\b|uitgesloten|onwaarschijn|nie\b|odrzuc"
    r"|wyklucz|не\b|исключ|маловероят|черновик)|n't\b|不推荐|不推薦|排除|不太可能|草稿|除外|おすすめしない|可能性が低い|제외"
    r"|추천하지|초안|مستبعد|غير",
    re.IGNORECASE,
)
_ASIDE = re.compile(
    r"\b(?:candidates?\b|considered|histor|watched|seen\b|shown\b|inputs?\b|bought|others?\b|remain|analysis|thoughts?\b"
    r"|reasoning|original|random|baseline|notes?\b|reasons?\b|given|bottom\b|already|dislike|negativ|ineligib|unsuit"
    r"|irrelevan|weak|poor|bad\b|low[\s_-]+(?:prob|likel|scor|prior|rank)|alphabet|unorder|unsorted|unranked|ids?\s*:?$|kandidat|candidat|кандидат|verlauf|история)"
    r"|候选|候補|후보|历史|履歴|其他|その他|기타",
    re.IGNORECASE,
)
_PAST = r"(?:histor|watch|view|seen|bought|purchas|play|taste|preferen|profil|verlauf|истори|历史|歷史|履歴|歴史|기록)"
_BASIS = re.compile(
    r"(?:\b(?:based on|given|considering|judging (?:by|from)|looking at|going by|according to|in view of|basierend auf"
    r"|aufgrund|ausgehend von|d'après|selon|según|basado en|con base en|com base|in base a|sulla base|op basis van"
    r"|на основе|исходя из)\b|根据|基于|根據|基於)"
    rf"(?=[^,:;.，：。\n]{{0,80}}{_PAST})[^,:;.，：。\n]{{0,80}}"
    rf"|{_PAST}[^,:;.、，：。\n]{{0,80}}(?:に基づ|を踏まえ|から判断|기반으로|바탕으로)",
    re.IGNORECASE,
)
"""What a list was derived from."""

_POSITIVE = re.compile(
    r"\b(?:final|answer|ranking|ranked|recommend|result|prediction|top\b|here (?:is|are)|rangliste|empfehl|antwort"
    r"|classement|recommand|réponse|clasificaci|recomend|respuesta|classifica|raccomand|resposta|aanbevel|рейтинг"
    r"|рекоменд"
    r"|ответ)"
    r"|排序|排名|推荐|推薦|答案|ランキング|おすすめ|回答|순위|추천",
    re.IGNORECASE,
)
_UNORDERED = re.compile(
    r"\b(?:in no (?:particular|special|specific) order|in any order|in arbitrary order"
    r"|order (?:is|was) (?:arbitrary|random|irrelevant|meaningless|not (?:important|meaningful|significant|relevant))"
    r"|order (?:does not|doesn't) (?:matter|mean)|not (?:in order|ranked|sorted|in any order|in any particular order)"
    r"|(?:all )?equally (?:likely|ranked|probable)|keine bestimmte reihenfolge|ohne bestimmte reihenfolge"
    r"|sans ordre particulier|sin (?:un )?orden (?:particular|específico)|senza (?:un )?ordine (?:particolare|preciso)"
    r"|sem (?:uma )?ordem (?:específica|particular)|in willekeurige volgorde|в произвольном порядке"
    r"|без (?:определ[её]нного|особого) порядка)\b|不分先后|不分先後|順不同|순서 (?:무관|없이)",
    re.IGNORECASE,
)
_CHOICE = re.compile(
    r"\b(?:(?:option|variant|list|ranking|scenario|user|person|viewer|case) #?(?:[ab12]|one|two)\b"
    r"|for (?:the |an? )?(?:first|second|other) (?:user|person|viewer|customer|case)|just as (?:good|well|likely|valid)"
    r"|equally (?:good|valid|likely|plausible)|either (?:list|one|of)|whichever|or,? if\b"
    r"|another (?:option|possib|choice)"
    r"|if (?:you|they|he|she|the (?:user|viewer|person|customer)) (?:prefer|want|like|mean)|alternativ|oder aber"
    r"|falls |sinon|si no|в противном случае)|或者|如果|または|또는|或是",
    re.IGNORECASE,
)
_EXAMPLE = re.compile(
    r"(?:\b(?:for (?:example|instance)|e\.g\.|(?:an? |valid |sample |output )*examples?\b|hypothetical\w*"
    r"|zum beispiel|z\. ?b\.|par exemple|por ejemplo|por exemplo|per esempio|bijvoorbeeld|например)"
    r"|例如|比如|例えば|たとえば|예를 들어)"
    r"[^.!?\n]{0,60}[\s`~]*(?:json)?\s*\Z",
    re.IGNORECASE,
)
_FINAL = re.compile(r"\W*(?:my |the |so |here is (?:my|the) )*(?:final|answer\b)[^.!?]{0,60}(?::|$)", re.IGNORECASE)
_LITTLE = (
    r"(?:moins|moindre|menos|menor(?:es)?|peor(?:es)?|pior(?:es)?|meno|minore|peggior\w*|unwahrscheinlich\w*|wenigst\w*"
    r"|niedrig\w*|gering\w*|schlecht\w*|schwächst\w*|minst|mindst|laag\w*|lägst|lavest|slechtst\w*|onwaarschijnlijk\w*"
    r"|najmniej|najgors\w*|najniż\w*|nejméně|nejhor\w*|nejniž\w*|наименее|менее|худш\w*|наименьш\w*|меньш\w*|низк\w*"
    r"|найменш\w*|en (?:az|düşük|kötü)|düşükten|الأقل|الأدنى|الأضعف|सबसे कम|terkecil|terendah"
    r"|paling (?:kecil|rendah|tidak|lemah)|ít|thấp(?: nhất)?)"
)
_TO = (
    r"(?:(?:au|aux|à|a|al|alla|ai|ao|aos|até|hasta|para|zu|zum|zur|bis|nach|naar|tot|till|til|do|po|k|ke|к|до|sampai"
    r"|đến)\b|hingga\b|en\b|إلى|से)"
)
_MUCH = (
    r"(?:plus|más|mayor(?:es)?|mejor(?:es)?|mais|maior(?:es)?|melhor(?:es)?|più|maggior\w*|miglior\w*|wahrscheinlich\w*"
    r"|meist\w*|meest|mest|hoog\w*|höchst\w*|hoch\w*|högst|højest|best\w*|stärkst\w*|beste|najbardziej|najleps\w*|najwyż\w*"
    r"|nejvíce?|nejlep\w*|nejvyš\w*|наиболее|более|лучш\w*|наибольш\w*|больш\w*|высок\w*|найбільш\w*|yüksek\w*|olası\w*|çok"
    r"|iyi\w*|الأكثر|الأعلى|الأقوى|सबसे|terbesar|tertinggi|paling|nhiều|cao|có khả năng)"
)
_FIRST = (
    r"(?:d'abord|en premier|zuerst|primero|primeiro|prima|per prim\w+|eerst|først|först|najpierw|nejprve|сначала|сперва"
    r"|önce|أولا|पहले)"
)
_BEST = r"(?:best|strongest|likeliest|(?:most|more)[\s_-]+(?:likely|probable|relevant|preferred))"
_WEAK = r"(?:least|less likely|worst|lowest|weakest|poorest|unlikeliest)"
_REVERSED = re.compile(
    r"least[\s_-]+(?:likely|preferred|relevant|probable|interesting)?[^.\n]{0,40}?(?:first\b|to[\s_-]+(?:the[\s_-]+)?most)"
    r"|(?:worst|lowest|weakest)[^.\n]{0,20}?(?:first\b|to[\s_-]+(?:the[\s_-]+)?(?:best|highest|strongest))|\basc(?:ending)?\b"
    r"|\blast\b[^.\n]{0,20}?\bto[\s_-]+(?:the[\s_-]+)?first\b|\brevers(?:e|ed)\b"
    r"|(?:best|most[\s_-]+\w+)[\s_-]+(?:one[\s_-]+)?(?:is[\s_-]+)?last\b|\bbackwards?\b"
    rf"|\b{_WEAK}\b[^.\n]{{0,50}}?\b(?:to|towards?|until|ending|ends?|finish\w*|up to)\b[^.\n]{{0,20}}?\b{_BEST}\b"
    r"|\bincreas(?:e|es|ing)\b[^.\n]{0,20}?\b(?:likel|probab|relevan|preference|confiden|fit\b|order)"
    r"|\b(?:likel|probab|relevan)\w*[^.\n]{0,12}?\bincreas(?:es|ing)\b|\bbottom[\s_-]+(?:to[\s_-]+top|up)\b"
    rf"|\b{_BEST}\b[^.\n]{{0,30}}?\b(?:for last|comes last|at the (?:end|bottom)"
    r"|(?:is|being|placed|listed|goes) last)\b"
    r"|\bbest\b[^.\n]{0,30}?\b(?:for|at|until) (?:the )?(?:very )?(?:end|last)\b"
    rf"|\b(?:last|bottom|final) (?:one|entry|id|label|pick)\b[^.\n]{{0,25}}?\b(?:my |the )?{_BEST}\b",
    re.IGNORECASE,
)
_REVERSED_ELSEWHERE = re.compile(
    rf"(?<!\w){_LITTLE}(?!\w)[^.\n]{{0,40}}?(?:(?<!\w){_TO}[^.\n]{{0,20}}?(?<!\w){_MUCH}(?!\w)|(?<!\w){_FIRST}(?!\w))"
    r"|\b(?:croissant|aufsteigend\w*|ascendente|creciente|crescente|oplopend|stigande|stigende|rosnąc\w*|vzestupn\w*"
    r"|umgekehrt\w*|rückwärts|invers[oae]|по возрастанию|в порядке возрастания|в обратном|зростанн\w*|artan|menaik"
    r"|tăng dần)(?!\w)|تصاعدي|बढ़ते क्रम"
    r"|(?:最不|最低|最小|最差|最弱|低|小|弱)[^。.\n]{0,10}?[到至往][^。.\n]{0,3}?(?:最|高|大|强|強)|升序|倒序|逆序|递增|遞增"
    r"|(?:低い|小さい|弱い|低)(?:もの|方)?(?:から|順)|昇順|逆順|(?:낮은|적은|작은|약한)[^.\n]{0,6}?(?:순|것부터|에서)|오름차순|역순",
    re.IGNORECASE,
)
_REVISED = re.compile(
    r"\b(?:wait|actually|correction|corrected|scratch that|on second thought|oops|swap|mistake|revis\w+|reconsider\w*"
    r"|(?<!this )(?<!these )(?<!they )(?<!that )should (?:be|come|go|rank)"
    r"|(?:deserves?|ought|needs) to|move|moving|replace|switch"
    r"|let me (?:re|fix|correct|change)"
    r"|wrong (?:order|way|list)|the other way (?:round|around)|sorry|ignore|disregard|no, |in its place"
    r"|(?:please|then|note:?|must|would|could|might|i'd|let's) (?:put|drop|remove|delete|exchange|flip|insert|add"
    r"|prefer))\b"
    r"|\b(?:korrektur|korrigier\w*|moment\b|tausch\w*|getauscht|vertausch\w*|doch lieber|umgekehrt|stattdessen"
    r"|verzeihung"
    r"|correcci[óo]n|corrige\w*|espera|intercambi\w*|perdón|mejor dicho|en realidad|invertir|invierte|debería\w* ir"
    r"|correction|corrig\w+|attendez|pardon|en fait|inverse[rz]?|échang\w+|devrait|au lieu|erreur"
    r"|correzione|anzi|scambi\w+|invert\w+|in realtà|dovrebbe|errore|correção|na verdade|troc(?:ar|a|ando)|deveria"
    r"|correctie|eigenlijk|wissel\w*|omdraaien|właściwie|zamie[nń]\w*|powinn\w+|popraw\w*"
    r"|исправ\w+|поправк\w+|подожд\w+|поменя\w+|нет, |долж(?:ен|на|но)|извин\w+|на самом деле|переста\w+)\b"
    r"|更正|修正|等等|交换|交換|訂正|入れ替え|不对|不對|其实|对调|對調|调换|抱歉|すみません|失礼|間違|ではなく|정정|수정|사실은|바꿔|죄송|잘못",
    re.IGNORECASE,
)
_BEFORE = re.compile(
    r"\b(?:before|above|ahead|over|beats?|outranks?|higher|better|prior|in front|should|deserves?|vor\b|über|höher"
    r"|besser"
    r"|avant|devant|au-dessus|mieux|meilleur|antes|encima|delante|mejor|prima\b|sopra|davanti|meglio|acima|melhor"
    r"|voor\b|boven|hoger|beter|przed|wyżej|lepsz\w*|перед|выше|раньше|лучше)\b"
    r"|前|先于|高于|優先|优于|より|앞|위에|먼저|보다",
    re.IGNORECASE,
)
_AFTER = re.compile(
    r"\b(?:after|below|behind|lower|under|worse|nach\b|hinter|unter\b|tiefer|après|derrière|sous|después|detrás|debajo"
    r"|dopo|dietro|sotto|depois|abaixo|atrás|achter|onder|poniżej|после|ниже|позади)\b|后面|之后|後ろ|低于|뒤|아래",
    re.IGNORECASE,
)
_BEST_IS = re.compile(
    rf"\b(?:{_BEST}|top|first|number[ -]one|strongest|favou?rite)[\s_-]+(?:pick|choice|match|candidate|recommendation"
    r"|option"
    r"|next|place|bet|fit)\b|\bnumber one\b|(?<!\w)(?:#|no\. ?)1\b"
    r"|\b(?:goes|comes|ranks?|ranked) first"
    rf"|\b(?:the|my) {_BEST} (?:is|would be)|\b(?:in|at) the (?:top|first)\b|\bbelongs? (?:first|at the top)"
    r"|\b(?:beste|erste) (?:wahl|platz|empfehlung)|meilleur choix|premi[eè]re? (?:choix|place)|mejor opción"
    r"|primer lugar"
    r"|primo posto|scelta migliore|первое место|лучший выбор|第一[名位]|首选|最佳选择|最可能|1位|1위",
    re.IGNORECASE,
)


def is_aside(heading: str) -> bool:
    """Whether the words before a list say that it is not the ranking."""
    plain = _BASIS.sub("", _MOST_TO_LEAST.sub("", heading))
    return bool(_NEVER.search(plain) or (_ASIDE.search(plain) and not is_positive(plain)))


def is_positive(heading: str) -> bool:
    """Whether the words before a list call it the answer."""
    return bool(_POSITIVE.search(heading))


def is_final(line: str) -> bool:
    """Whether a line announces the final list."""
    return bool(_FINAL.match(line))


def says_reversed(text: str) -> bool:
    """Whether a text says that its list ends with the best."""
    return bool(_REVERSED.search(text) or _REVERSED_ELSEWHERE.search(text))


def says_revised(text: str, *, at_start: bool = False) -> bool:
    """Whether a text changes what stands before it; only by its first words where `at_start`."""
    return bool(_REVISED.match(text) if at_start else _REVISED.search(text))


def says_unordered(text: str) -> bool:
    """Whether a text says that its list has no order."""
    return bool(_UNORDERED.search(text))


def says_example(text: str) -> bool:
    """Whether a text ends by announcing an example."""
    return bool(_EXAMPLE.search(text[-200:]))


def offers_choice(text: str) -> bool:
    """Whether the words around several lists offer them for a choice."""
    return bool(_CHOICE.search(text))


def says_before(text: str) -> bool | None:
    """Whether a text places what it names first before what it names next, or behind it; None where it says neither."""
    if _BEFORE.search(text):
        return True
    return False if _AFTER.search(text) else None


def says_best(text: str) -> bool:
    """Whether a text calls something the first of the list."""
    return bool(_BEST_IS.search(text))
